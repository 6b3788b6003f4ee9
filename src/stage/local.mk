# SPDX-License-Identifier: MIT
%C%_libstage_la_SOURCES = \
	%D%/call.c \
	%D%/context.c \
	%D%/context.h \
	%D%/exec.c \
	%D%/exec_answer.c \
	%D%/exec_answer.h \
	%D%/exec_check.c \
	%D%/exec_pipe.c \
	%D%/exec_pipe.h \
	%D%/exec_process.c \
	%D%/exec_process.h \
	%D%/function.c \
	%D%/http.c \
	%D%/http.h \
	%D%/native.h \
	%D%/plugin.c \
	%D%/plugin.h \
	%D%/stage.c \
	%D%/stage.h
