"""The release of the shop's code that this process runs: each has a fault that the next one repairs."""

import os

RELEASE = int(os.environ.get("SHOP_RELEASE", "1"))

HAS_VAT_RATES = RELEASE >= 2
PRINTS_ALL_LABELS = RELEASE >= 3
READS_ALL_PHOTOS = RELEASE >= 4
# The fourth release renames a receiver, and the fifth one says so.
RENAMED = RELEASE >= 4
NAMES_THE_OLD_RECEIVER = RELEASE >= 5
