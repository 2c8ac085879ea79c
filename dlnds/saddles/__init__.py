"""How runs leave, reach and join saddles: directions, manifolds, arcs, the graph of connections."""
