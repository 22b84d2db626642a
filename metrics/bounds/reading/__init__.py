"""A model read off its export: which operation of ours each of torch's is."""
