# SPDX-License-Identifier: MIT
%C%_libimport_la_SOURCES = \
	%D%/copy.c \
	%D%/copy.h \
	%D%/go_database.c \
	%D%/go_database.h \
	%D%/import.c \
	%D%/import.h \
	%D%/row.c \
	%D%/row.h
