"""Attention of a trained model over recordings, as arrays and plots."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "clip_attention": ["ClipAttention", "attend_to_clip", "plot_clips"],
        "plots": ["draw_attention_maps", "draw_token_attention"],
    },
)
