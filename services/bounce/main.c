#include "service.h"

int main(int argc, char **argv)
{
    return td_app_main(argc, argv, &bounce_service);
}
