"""The training job: images of known classes in, a versioned SavedModel out."""

import ctypes
import os


def _has_cuda_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


# Keras and TensorFlow read these when they are imported, which any module here may be the first to do.
os.environ["KERAS_BACKEND"] = "tensorflow"  # the export and the input pipeline are TensorFlow's
# Errors alone; without NVIDIA's driver not even those, since TensorFlow reports the missing driver as one
# ("UNKNOWN ERROR (303)") whatever it is told about devices. Its own exceptions say what fails later. TensorFlow 2.21
# prints a few notes before it reads this.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if _has_cuda_driver() else "3")
