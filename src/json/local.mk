# SPDX-License-Identifier: MIT
%C%_libjson_la_SOURCES = \
	%D%/json.c \
	%D%/json.h \
	%D%/msgpack.c \
	%D%/msgpack.h \
	%D%/msgpack_head.h \
	%D%/msgpack_json.c \
	%D%/msgpack_write.c \
	%D%/msgpack_write.h \
	%D%/split.c \
	%D%/split.h \
	%D%/scan.h \
	%D%/validate.c \
	%D%/write.c
