"""What a process tells of itself to Prometheus.

`types` are counters, gauges and histograms that cost next to nothing to keep; `table` declares every metric there is,
once; `sources` reads figures that others keep anyway when somebody asks; `exposition` writes them down. Nothing here
decides what is measured where: whoever does the work counts it.
"""
