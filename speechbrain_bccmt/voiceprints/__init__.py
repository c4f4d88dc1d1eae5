"""Enrolled speakers and the store that keeps them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "guidance": ["Advice", "Enrolment"],
        "open_set": ["identify_open_set"],
        "records": ["Candidate", "EnrolledSpeaker", "EnrolledUtterance", "Identification", "Reference"],
        "store": ["Voiceprints"],
    },
)
