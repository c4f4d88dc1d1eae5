"""Read recordings: decoding, resampling, headers, waveforms in memory. The one reader for training and inference."""
