"""Fine-tuning: samples, splits, augmentation, training, metrics."""
