"""The training job: labelled images in, a versioned SavedModel out."""

import ctypes
import os


def _has_cuda_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


# Keras and TensorFlow read these when they are first imported, which any module here may do.
os.environ["KERAS_BACKEND"] = "tensorflow"  # the export and the input pipeline are TensorFlow's
# Logs errors only, and without NVIDIA's driver none, because TensorFlow always logs the missing driver as an error
# ("UNKNOWN ERROR (303)"). Later failures raise exceptions. TensorFlow 2.21 prints a few messages before it reads this.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if _has_cuda_driver() else "3")
