"""A channel layer over Redis or Valkey, where several hosts take part."""
