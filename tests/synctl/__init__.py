"""Tests of synapse.synctl."""
