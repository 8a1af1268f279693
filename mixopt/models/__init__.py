"""Models: config, transformer, MoE layers, routers, upcycling. Needs torch and numpy alone."""
