# SPDX-License-Identifier: MIT
%C%_libconfig_la_SOURCES = \
	%D%/config.c \
	%D%/config.h \
	%D%/idefix_syntax.c \
	%D%/idefix_syntax.h \
	%D%/limits.c \
	%D%/limits.h \
	%D%/rights.c \
	%D%/url.c \
	%D%/url.h \
	%D%/user.c \
	%D%/user.h \
	%D%/validate.c \
	%D%/yaml.c \
	%D%/yaml.h \
	%D%/yaml_json.c \
	%D%/yaml_list.c \
	%D%/yaml_mapping.c \
	%D%/yaml_reader.c \
	%D%/yaml_schema.c \
	%D%/yaml_syntax.c \
	%D%/yaml_value.c
