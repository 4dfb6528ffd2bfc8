"""The training job: images of known classes in, a versioned SavedModel out."""

import os

# Both are read when Keras and TensorFlow are imported, which every module here may be the first to do.
os.environ["KERAS_BACKEND"] = "tensorflow"  # the export and the input pipeline are TensorFlow's
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors and warnings are left, start-up notes are not
