# SPDX-License-Identifier: MIT
%C%_libcontrol_la_SOURCES = \
	%D%/admin.c \
	%D%/admin.h \
	%D%/admin_inject.c \
	%D%/admin_list.c \
	%D%/admin_names.c \
	%D%/admin_request.c \
	%D%/command.c \
	%D%/command.h \
	%D%/control.c \
	%D%/control.h
