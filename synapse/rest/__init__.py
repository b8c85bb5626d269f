"""The endpoints: each takes a request apart, calls a handler, and puts the answer together.

A class per subject, its methods bound to the endpoints of the route table by name; `registry` says which class serves
which. No endpoint knows SQL, and no handler knows HTTP.
"""
