# SPDX-License-Identifier: MIT
%C%_libidefix_la_SOURCES = \
	%D%/client.c \
	%D%/client.h \
	%D%/error_code.c \
	%D%/error_text.c \
	%D%/frame.c \
	%D%/frame.h \
	%D%/gzip.c \
	%D%/gzip.h \
	%D%/link.c \
	%D%/link.h \
	%D%/mqtt.c \
	%D%/mqtt.h \
	%D%/query.c
