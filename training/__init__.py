"""The training job: images of known classes in, a versioned SavedModel out."""

import os

# Both are read when Keras and TensorFlow are imported, which every module here may be the first to do.
os.environ["KERAS_BACKEND"] = "tensorflow"  # the export and the input pipeline are TensorFlow's
# Leaves out what is less than an error, but for a few notes that TensorFlow 2.21 prints before it looks at this.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
