# cmake -DPROGRAM=... -DWHAT=... -DVERSION=... -DOUTPUT=... -P man_page.cmake: a man page that shows PROGRAM --help.
get_filename_component(name ${PROGRAM} NAME)
execute_process(COMMAND ${PROGRAM} --help OUTPUT_VARIABLE help COMMAND_ERROR_IS_FATAL ANY)
string(REPLACE "\\" "\\e" help "${help}")
string(REPLACE "-" "\\-" help "${help}")
string(REGEX REPLACE "(^|\n)([.'])" "\\1\\\\&\\2" help "${help}")
string(TOUPPER ${name} title)
file(WRITE ${OUTPUT} ".TH ${title} 1 \"\" \"${name} ${VERSION}\" \"User Commands\"
.SH NAME
${name} \\- ${WHAT}
.SH DESCRIPTION
.nf
${help}.fi
.SH SEE ALSO
.BR mdslaunch (1)
")
