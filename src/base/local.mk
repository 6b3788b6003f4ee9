# SPDX-License-Identifier: MIT
%C%_libbase_la_SOURCES = \
	%D%/backoff.c \
	%D%/backoff.h \
	%D%/error.c \
	%D%/error.h \
	%D%/hash.c \
	%D%/hash.h \
	%D%/log.c \
	%D%/log.h \
	%D%/secret.c \
	%D%/secret.h \
	%D%/suggest.c \
	%D%/suggest.h \
	%D%/text.c \
	%D%/text.h \
	%D%/units.c \
	%D%/units.h \
	%D%/utf8.c \
	%D%/utf8.h
