"""The benchmarks. Each script runs by itself (see README.md); as a package they can import each other."""
