"""Ray, and nothing but Ray: connecting, the task that trains, and the driver's event loop."""
