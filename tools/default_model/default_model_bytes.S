/* The file, byte for byte. Aligned as the loader asks of bytes in memory, and to a cache line. */
  .section .rodata
  .globl qwen_default_model_begin
  .globl qwen_default_model_end
  .balign 64
qwen_default_model_begin:
  .incbin QWEN_DEFAULT_MODEL_FILE
qwen_default_model_end:
  .byte 0
  .section .note.GNU-stack,"",%progbits
