"""From names and shapes of tensors to the timm module that holds them, and its weights."""
