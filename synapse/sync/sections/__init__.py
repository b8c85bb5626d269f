"""The parts of an answer to /sync, a small module each, all with the two methods of `synapse.sync.context.Section`."""
