"""Critical points: where they are, of which kind, their fibers, orbits and spectra."""
