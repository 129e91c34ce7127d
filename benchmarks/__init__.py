"""How fast Stratum is, beside what the same work costs bare: `make bench`. docs/performance.md tells the figures."""
