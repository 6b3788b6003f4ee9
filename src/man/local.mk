# SPDX-License-Identifier: MIT
# The manuals.
dist_man_MANS = %D%/eventpipe-idefix.7 %D%/eventpipe.1 %D%/eventpipe.yaml.5 %D%/eventpiped.8 %D%/libeventpipe.3
