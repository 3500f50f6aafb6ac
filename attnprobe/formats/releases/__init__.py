"""One file a release: each exports FORMATS, the layouts of its checkpoints."""
