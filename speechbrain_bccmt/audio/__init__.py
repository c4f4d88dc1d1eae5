"""Reading recordings, for training and inference alike: decoding, resampling, headers.

Nothing here depends on a network.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "crops": ["read_crop"],
        "folders": ["find_recordings"],
        "headers": ["read_header", "read_headers"],
        "recording": ["Recording", "read_mono"],
        "resampling": ["resample"],
    },
)
