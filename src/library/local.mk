# SPDX-License-Identifier: MIT
%C%_liblibrary_la_SOURCES = \
	%D%/idefix.c \
	%D%/manager.c \
	%D%/manager.h \
	%D%/metrics.c \
	%D%/strerror.c
pkgconfigdir = $(libdir)/pkgconfig
pkgconfig_DATA = %D%/libeventpipe.pc
EXTRA_DIST += %D%/libeventpipe.pc.in
