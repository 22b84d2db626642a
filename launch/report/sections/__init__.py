"""The sections of the report, one a file: each computes its data and names its charts."""
