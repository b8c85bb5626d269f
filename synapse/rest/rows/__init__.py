"""Which class serves which endpoints, a module per subject; `synapse.rest.registry` puts them together.

Rows import what they make only when it is made, so that a process loads the code of those endpoints alone that it
serves.
"""
