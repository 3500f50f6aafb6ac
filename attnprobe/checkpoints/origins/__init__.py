"""Where checkpoints come from: paths, catalogue, model hubs; downloads and where they are kept."""
