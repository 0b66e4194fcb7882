/* The file, byte for byte. Aligned as the loader asks of bytes in memory, and to a cache line. */
  .section .rodata
  .globl kQwenDefaultModelBegin
  .globl kQwenDefaultModelEnd
  .balign 64
kQwenDefaultModelBegin:
  .incbin QWEN_DEFAULT_MODEL_FILE
kQwenDefaultModelEnd:
  .byte 0
  .section .note.GNU-stack,"",%progbits
