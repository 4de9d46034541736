"""What the benchmarks and the fault suite share: processes, requests, tables."""
