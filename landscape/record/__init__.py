"""One HDF5 file a run: written by the callbacks, read by the analysis, readable by everybody."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submod_attrs={
        "_memory": ["MemoryRecorder"],
        "_reader": ["Run", "open_run"],
        "_recorder": ["Recorder"],
        "_schema": ["COMMON", "REASON_BYTES", "SCHEMA_VERSION", "STATUS", "Coordinate", "GroupSchema", "Variable"],
        "_trajectory": ["Trajectory"],
    },
)
