"""Endpoints and pages of single sign-on, which browsers go through rather than clients.

Whatever goes wrong there is told on a page (`pages`); `browser` has the cookie that ties the steps together.
"""
