"""The schemas of the text formats, and their generated code.

The messages have the names and numbers of AMCT's. They live in a descriptor pool of their own, so that another package
that registers the same names in protobuf's default pool can be imported in the same process. `generate.sh` makes the
generated code anew.
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
