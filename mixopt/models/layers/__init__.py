"""Feed-forward layers whose experts are not E equal SwiGLUs; a router names its own."""
