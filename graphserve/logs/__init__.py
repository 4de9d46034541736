"""What our processes say: records, tracebacks, text that can be shown. Used in every process."""
