"""What the quickstart, the live test and the benchmarks share: weed, kelpd, and telling how far one is."""
