"""What a user touches, and Ray."""

import launch.siblings  # noqa: F401  before anything that imports a sibling
