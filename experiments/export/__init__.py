"""Models for use without this project: SavedModel, ONNX and TFLite, compared with Keras before they are handed out."""
