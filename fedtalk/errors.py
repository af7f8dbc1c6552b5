"""The errors a user of fedtalk can meet. Each message says what, what was expected, what was got and what to do."""


class FedTalkError(Exception):
    """Base of all errors raised on purpose by fedtalk."""


class ConfigurationError(FedTalkError, ValueError):
    """A setting is wrong, or two settings contradict each other; raised before any work starts."""


class MediaError(FedTalkError):
    """A video, picture or sound file can't be used as it is."""


class FaceNotFoundError(MediaError):
    """No usable face was found where one is needed."""


class ArtifactError(FedTalkError):
    """A checkpoint, backbone, adapter or client folder is missing, damaged or made for something else."""


class OutputError(FedTalkError):
    """The result can't be written: no permission, no space, or a folder in the way."""
