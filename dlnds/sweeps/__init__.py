"""Many runs over a grid, in a folder that loses nothing."""
