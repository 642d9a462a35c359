# Write OUTPUT, a C++ file whose yaie::build_id() is a hash of SOURCES (names relative to ROOT and
# contents) and FLAGS_HASH.
set(all "${FLAGS_HASH}")
list(SORT SOURCES)
foreach(source IN LISTS SOURCES)
  file(SHA256 ${source} hash)
  file(RELATIVE_PATH name ${ROOT} ${source})
  string(APPEND all "\n${name} ${hash}")
endforeach()
string(SHA256 id "${all}")
string(SUBSTRING ${id} 0 16 id)
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT
     "namespace yaie {\nconst char* build_id();\nconst char* build_id() { return \"@id@\"; }\n}\n" @ONLY)
