"""The rows of the route table, a module per subject; `synapse.api.routes` puts them together."""
