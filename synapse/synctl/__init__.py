"""`synctl`: starts, stops, restarts and inspects the processes of a server, and writes proxy configurations for them.

It is a tool for the machine that the processes run on. It serves nothing, and of Matrix it knows the route table alone.
"""
